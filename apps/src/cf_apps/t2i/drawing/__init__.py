"""Pictures of prompts, walks between them, and the sheets that show them."""
