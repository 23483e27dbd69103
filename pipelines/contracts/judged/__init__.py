"""Single facts of a judgement; `pipelines.contracts.judgement` is the door to this room."""
