"""What several verbs share: options, what is printed, how files are opened, how failures end."""
