"""What is kept on disk: a training to go on from, and a finished model."""
