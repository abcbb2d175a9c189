"""How good maps are: data sets with annotations, protocols that measure maps on them, and generated scenes."""
