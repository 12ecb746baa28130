"""What a video will take, computed before anything is loaded."""
