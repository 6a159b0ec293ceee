"""autoresearch: an AI agent does pretraining research on the hardware you have."""
