"""The demo: a broker, Valkey and a worker on this machine, a simulated shop, a live view."""
