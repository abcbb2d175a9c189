"""What is explained: classes, combinations of them, cotangents, and how each is said in words."""
