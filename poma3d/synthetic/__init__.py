"""Procedural rooms: layout, furniture, ray casting, captions. A stand-in for scans."""
