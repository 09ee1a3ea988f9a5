"""Models with weights from elsewhere: teacher and captioner."""
