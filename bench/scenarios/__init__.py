"""The scenarios, one module each. The first line of a module says what its number means.

Each has ``run(options) -> Result``. The names of the modules are the permanent ids.
"""

# In the order in which `make bench` runs them.
DEFAULT = (
    "pipeline",
    "freshness",
    "withdraw",
    "model",
    "profile",
    "batch",
    "codec",
    "store",
    "transport",
    "catchup",
    "scale",
    "cluster",
)
ON_DEMAND = ("floor", "naive", "peers", "soak")  # the first three are parts of `pipeline`
