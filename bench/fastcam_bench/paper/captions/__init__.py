"""Captioning (Grad-CAM paper, section 8.1): scenes, captions, a captioner without attention, and what its maps say."""
