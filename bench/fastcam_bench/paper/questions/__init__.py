"""Visual questions (Grad-CAM paper, section 8.2): networks trained to answer them, and what their maps say."""
