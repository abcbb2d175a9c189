"""A small dual encoder of pictures and prompts, trained on generated scenes, and what its maps of prompts show."""
