"""What a Conv's input gradient costs by each form, and gradients of whole networks by the form that is chosen."""
