"""Whether what a model says of pictures has changed: two tables of ``fastcam batch``, figure by figure."""
