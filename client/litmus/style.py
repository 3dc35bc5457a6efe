"""The style sheet of the report: little ink, light and dark, on screens and on paper. Pure."""

_LIGHT = {
    "paper": "#fdfdfb",
    "ink": "#22262b",
    "faint": "#6b7280",
    "rule": "#d9dce1",
    "good": "#1f6f43",
    "bad": "#b3261e",
    "old": "#a85b00",
    "new": "#1c5fa8",
}
_DARK = {
    "paper": "#16191d",
    "ink": "#e4e6e9",
    "faint": "#9aa2ad",
    "rule": "#363c44",
    "good": "#6fce97",
    "bad": "#ff8a80",
    "old": "#f0ad5c",
    "new": "#7db7f5",
}
assert _LIGHT.keys() == _DARK.keys()

_RULES = """
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 104rem; padding: 2.5rem 1.5rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { font-size: 1.9rem; font-weight: 600; line-height: 1.2; margin: 0 0 .5rem }
h2 { font-size: 1.25rem; font-weight: 600; line-height: 1.3; margin: 0 }
p { margin: .4rem 0; max-width: 44rem }
a { color: inherit }
code { font: .92em ui-monospace, "DejaVu Sans Mono", monospace }
dl { margin: .8rem 0; max-width: 44rem }
dt { font-weight: 600 }
dd { margin: 0 0 .35rem 0 }
table { border-collapse: collapse; margin: 1.5rem 0; max-width: 70rem; width: 100%;
  font-size: .93rem; font-variant-numeric: tabular-nums; line-height: 1.35 }
th, td { text-align: left; vertical-align: top; padding: .4rem .9rem .4rem 0;
  border-bottom: 1px solid var(--rule) }
thead th { border-bottom: 1.5px solid var(--ink) }
tbody th { font-weight: 500 }
tbody th small { display: block; font-weight: 400; max-width: 22rem }
small, .source, .name { color: var(--faint); font-size: .85rem }
.allowed b, .allowed .sign { color: var(--good) }
.forbidden b, .forbidden .sign { color: var(--bad) }
section { border-top: 1px solid var(--rule); margin-top: 2.2rem; padding-top: 1.4rem }
.modes { display: grid; gap: 1.2rem 2.5rem; margin-top: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, var(--least)), 1fr)) }
figure { margin: 0; break-inside: avoid }
figure h3 { font-size: 1rem; margin: 0 0 .3rem }
figcaption { font-size: .93rem }
figcaption p { margin: .25rem 0 }
svg { display: block; max-width: 100%; height: auto;
  font: 12px system-ui, "DejaVu Sans", sans-serif }
svg text { fill: var(--ink); stroke: var(--paper); stroke-width: 3px; paint-order: stroke }
svg .faint { fill: var(--faint); font-size: 10.5px }
svg .who { font-size: 13px; font-weight: 600 }
svg .count { fill: var(--faint); font-size: 10.5px }
svg .value { font-weight: 700 }
svg .value.old { fill: var(--old) }
svg .value.new { fill: var(--new) }
svg .race { stroke: var(--rule); stroke-dasharray: 1 4; stroke-linecap: round;
  stroke-width: 2 }
svg .life { stroke: var(--rule); stroke-width: 1 }
svg .step { fill: var(--ink) }
svg .measured { fill: var(--paper); stroke: var(--ink); stroke-width: 1.2 }
svg .asked { fill: var(--faint) }
svg .trip { stroke: var(--faint); stroke-width: 1 }
svg .back { stroke-dasharray: 3 3 }
svg .death { stroke: var(--bad); stroke-width: 2.5 }
@media print {
  body { padding: 0; max-width: none; font-size: 11pt }
  section { break-inside: avoid }
}
"""


def _colours(named: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())


SHEET = (
    f":root {{ color-scheme: light dark; {_colours(_LIGHT)} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_colours(_DARK)} }} }}{_RULES}"
)
"""Paper is light whatever the screen is."""
