"""The verbs that measure maps on pictures with marks, and what they share."""
