"""What an app developer gets."""
