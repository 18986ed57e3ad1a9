"""A simulated shop with a seed: catalog, customers, sessions. Feeds the demo and the benchmarks.

What is learnable is known: :attr:`Catalog.substitutes` and :attr:`Catalog.complements` are the
truth behind co-occurrence, :attr:`Customers.taste` behind preferences, ``Shop.dirt`` behind errors.
"""

from stream_app.simulator.dirt import DIRT
from stream_app.simulator.pace import LIVE, REAL, Pace
from stream_app.simulator.shop import Shop

__all__ = ["DIRT", "LIVE", "REAL", "Pace", "Shop"]
