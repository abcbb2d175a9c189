"""The experiments of the Grad-CAM paper that change a picture or train a model."""
