"""What a video will take, before anything is loaded."""
