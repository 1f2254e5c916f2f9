"""What has happened in a jar, gathered from its state directory and told as a page."""
