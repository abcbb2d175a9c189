"""What explaining costs beside plain inference, on networks and beside peers."""
