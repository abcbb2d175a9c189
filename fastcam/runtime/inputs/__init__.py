"""What goes into a run: pictures, signals, volumes, texts, frames and further values, as batches."""
