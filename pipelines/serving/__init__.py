"""Answers ranking requests with the champion, and follows it; nothing is trained or judged here."""
