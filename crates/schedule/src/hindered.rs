//! What a failure reaches.

/// Of each of these, which stand after what they need, whether it fails by itself or needs one that is hindered.
pub(crate) fn hindered<T>(
    all: &[T],
    inputs: impl Fn(&T) -> &[u32],
    fails: impl Fn(usize, &T) -> bool,
) -> Vec<bool> {
    let mut hindered = vec![false; all.len()];
    for (position, one) in all.iter().enumerate() {
        hindered[position] =
            fails(position, one) || inputs(one).iter().any(|&input| hindered[input as usize]);
    }
    hindered
}
