"""Prompts of the small world. They have a file of their own because --help shows them and does not wait for jax."""

EXAMPLES = (
    'a red ball bounces over a meadow',
    'a striped blue star spins on the moon while the camera pans left',
    'a yellow heart rises in the night sky',
    'a dotted green ring moves right over the snow',
    'a pink triangle swings in the desert, the camera zooms in and out',
    'an orange box and a purple heart fly to the left over the ocean',
    'a cyan star hops and a yellow ball grows and shrinks over hot lava',
)
