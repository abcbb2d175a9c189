"""What a server says of itself: metrics, statistics, logs, traces, drift; never anything of a picture."""
