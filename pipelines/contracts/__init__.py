"""The values, errors and table schemas that every part agrees on. Imports no other part."""
