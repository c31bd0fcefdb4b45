"""What training takes: memory, network and time as formulae of a config (docs/scaling.md)."""
