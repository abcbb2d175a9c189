"""``fastcam tune``: what runs an exported file fastest on this machine, and whether it explains the same."""
