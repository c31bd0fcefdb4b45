"""The trainings of each scale."""
