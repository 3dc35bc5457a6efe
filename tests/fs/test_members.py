"""What is learned about the group of metaservers, and from whom."""

from tidefs.fs.members import Contact, Members
from tidefs.fs.messages.places import ServerPlace
from tidefs.fs.messages.raft import Configuration, MemberStatus

TOLD = ["tcp:one:1", "tcp:two:1"]


def place(server: int, host: str = "there", *addresses: str) -> ServerPlace:
    return ServerPlace(server, host, list(addresses) or [f"tcp:{server}:1"])


def status(
    server: int,
    *places: ServerPlace,
    role: str = "follower",
    term: int = 1,
    leader: int = 0,
    commit_index: int = 1,
) -> MemberStatus:
    servers = [place.server for place in places]
    configuration = Configuration(servers, [], [], list(places), [])
    leader = server if role == "leader" else leader
    numbers = (term, leader, commit_index, 0, 0, 0, 0, 0, 0)
    return MemberStatus("c", server, "", 1, role, *numbers, configuration=configuration, lag=[])


def test_at_first_there_are_the_addresses_it_was_told() -> None:
    members = Members([*TOLD, TOLD[0]], "here")
    assert members.contacts() == [Contact(0, (TOLD[0],)), Contact(0, (TOLD[1],))]


def test_members_are_learned_and_an_address_that_one_answered_at_is_no_contact_of_its_own() -> None:
    members = Members(TOLD, "here")
    members.met("tcp:one:1", 7)
    members.heard(status(7, place(7), place(8)))
    assert members.contacts() == [
        Contact(7, ("tcp:one:1", "tcp:7:1")),
        Contact(8, ("tcp:8:1",)),
        Contact(0, ("tcp:two:1",)),
    ]
    members.met("tcp:7:1", 7)
    assert members.contact(7) == Contact(7, ("tcp:7:1", "tcp:one:1"))


def test_what_was_told_can_be_told_anew() -> None:
    members = Members(TOLD, "here")
    members.met("tcp:one:1", 7)
    members.heard(status(7, place(7)))
    members.configure(["unix:/x", "tcp:7:1", "unix:/x"])
    assert members.contacts() == [Contact(7, ("tcp:7:1",)), Contact(0, ("unix:/x",))]
    assert members.any_unix


def test_who_is_gone_is_forgotten_and_what_was_told_is_kept() -> None:
    members = Members(TOLD, "here")
    members.met("tcp:one:1", 7)
    members.heard(status(7, place(7), place(8)))
    members.heard(status(8, place(8), commit_index=2))
    assert members.contacts() == [
        Contact(8, ("tcp:8:1",)),
        Contact(0, ("tcp:one:1",)),
        Contact(0, ("tcp:two:1",)),
    ]


def test_who_is_behind_tells_nothing_new() -> None:
    members = Members(TOLD, "here")
    members.heard(status(8, place(8), commit_index=5))
    members.heard(status(7, place(7), term=9, commit_index=4))
    assert members.contact(7) is None
    members.heard(status(8, place(9), role="leader", commit_index=5))
    members.heard(status(7, place(7), commit_index=5))
    assert members.contact(9) is not None
    assert members.contact(7) is None


def test_a_member_that_belongs_nowhere_yet_tells_nothing() -> None:
    members = Members(TOLD, "here")
    members.heard(status(8, place(8)))
    members.heard(status(9, role="joining", commit_index=7))
    assert members.contact(8) is not None


def test_unix_sockets_come_first_on_the_same_machine_and_nowhere_else() -> None:
    members = Members(TOLD, "here")
    both = ("tcp:x:1", "unix:/x")
    members.heard(status(1, place(1, "here", *both), place(2, "there", *both)))
    members.met("tcp:x:1", 1)
    assert members.contact(1) == Contact(1, ("unix:/x", "tcp:x:1"))
    assert members.contact(2) == Contact(2, ("tcp:x:1",))
    told = Members(["unix:/x"], "here")
    told.heard(status(2, place(2, "there", *both)))
    assert told.contact(2) == Contact(2, ("unix:/x", "tcp:x:1"))


def test_a_leader_is_one_of_the_latest_term_that_was_led() -> None:
    members = Members(TOLD, "here")
    old = status(1, role="leader", term=3)
    members.heard(old)
    assert members.leads(old)
    members.heard(status(2, term=5))  # a term that nobody leads yet
    assert members.leads(old)
    members.heard(status(2, term=5, leader=3))
    assert not members.leads(old)
    assert members.leads(status(3, role="leader", term=5))
    assert not members.leads(status(2, term=5, leader=3))
