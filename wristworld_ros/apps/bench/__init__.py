"""Rate, latency and memory on this machine."""
