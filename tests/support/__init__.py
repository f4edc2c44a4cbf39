"""Support: what tests of several folders share: systems, webhook receivers, events, clocks, certificates, waiting."""
