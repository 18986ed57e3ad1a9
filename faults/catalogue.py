"""Every kind of fault by its name."""

from faults import kinds, kinds_input, kinds_network, kinds_workers
from faults.kinds import Strike

STRIKES: dict[str, Strike] = {
    **kinds.STRIKES,
    **kinds_network.STRIKES,
    **kinds_workers.STRIKES,
    **kinds_input.STRIKES,
}
