"""Small networks that read texts beside pictures."""
