"""A session in a simulated world: machines, network, disks and time."""
