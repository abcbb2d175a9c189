"""``fastcam explain``: the verb, and what it does for pictures, texts, words and sheets."""
