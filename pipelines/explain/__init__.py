"""Why a challenger lost: it is trained again with one thing put back at a time."""
