"""One file per operation on the state. Importing them fills the table."""

from . import (
    cluster as cluster,
)
from . import (
    commit as commit,
)
from . import (
    create as create,
)
from . import (
    grant as grant,
)
from . import (
    link as link,
)
from . import (
    lock as lock,
)
from . import (
    mkdir as mkdir,
)
from . import (
    punch as punch,
)
from . import (
    readings as readings,
)
from . import (
    reap as reap,
)
from . import (
    rename as rename,
)
from . import (
    rmdir as rmdir,
)
from . import (
    sessions as sessions,
)
from . import (
    setattr as setattr,
)
from . import (
    symlink as symlink,
)
from . import (
    unlink as unlink,
)
from . import (
    unnamed as unnamed,
)
from . import (
    xattr as xattr,
)
