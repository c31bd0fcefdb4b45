"""crossflow: flow one modality straight into another."""
