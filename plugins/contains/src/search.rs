//! Where a text is in other text. A place is looked at only where two of its bytes fit, the rarest two; whether any place
//! of a block does is one loop without a branch, which compilers make vector instructions of. Larger blocks than a vector
//! pay in the sandbox, which looks at the clock at every turn of a loop.

use memchr::arch::all::packedpair::Pair;

/// Places that are looked at together.
const BLOCK: usize = 128;

/// Places of a block that are looked at together once one of the block fits.
const PART: usize = 16;

/// A text to look for.
#[derive(Debug)]
pub(crate) struct Search {
    text: Vec<u8>,
    /// Where in the text two of its bytes are that other text seldom has.
    rare: [usize; 2],
}

impl Search {
    /// `text` is not empty.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.as_bytes().to_vec();
        let pair = Pair::new(&text).map(|pair| [pair.index1(), pair.index2()].map(usize::from));
        Self { rare: pair.unwrap_or_default(), text }
    }

    /// The first place from `from` on where the text is in `data`.
    #[inline]
    pub(crate) fn find(&self, data: &[u8], from: usize) -> Option<usize> {
        let is_here = |at: usize| data[at..at + self.text.len()] == self.text;
        // One past the last place where it may begin.
        let end = (data.len() + 1).checked_sub(self.text.len())?;
        let [one, other] = self.rare;
        let bytes = self.rare.map(|index| self.text[index]);
        let mut at = from;
        while at + BLOCK <= end {
            let ones = data[at + one..].first_chunk().expect("a block before the end");
            let others = data[at + other..].first_chunk().expect("a block before the end");
            if may_hold::<BLOCK>(ones, others, bytes) {
                let parts = ones.as_chunks::<PART>().0.iter().zip(others.as_chunks::<PART>().0);
                for (start, (ones, others)) in (at..).step_by(PART).zip(parts) {
                    let fits = |place: &usize| ones[*place] == bytes[0] && others[*place] == bytes[1];
                    if may_hold(ones, others, bytes)
                        && let Some(place) = (0..PART).filter(fits).find(|place| is_here(start + place))
                    {
                        return Some(start + place);
                    }
                }
            }
            at += BLOCK;
        }
        (at..end).find(|at| data[at + one] == bytes[0] && is_here(*at))
    }
}

/// Whether there is a place where both bytes are.
#[inline]
fn may_hold<const PLACES: usize>(ones: &[u8; PLACES], others: &[u8; PLACES], bytes: [u8; 2]) -> bool {
    let mut any = 0;
    for (one, other) in ones.iter().zip(others) {
        any |= u8::from((one ^ bytes[0]) | (other ^ bytes[1]) == 0);
    }
    any != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_finds_what_the_plain_search_finds() {
        // Text of two letters, which has nearly everything somewhere; long enough for several blocks.
        let mut state = 7_u32;
        let data: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b'a' + (state >> 30 == 0) as u8
        })
        .take(1_000)
        .collect();
        for text in ["a", "b", "ab", "bb", "bab", "bbbb", "abbabb", "bbbbbbbbbb", "c", "ac"] {
            let search = Search::new(text);
            for from in [0, 1, 63, 127, 128, 500, 990, 999] {
                for end in [from, from + 1, 999, 1_000] {
                    let data = &data[..end.min(1_000)];
                    let plain =
                        data[from.min(data.len())..].windows(text.len()).position(|window| window == text.as_bytes());
                    assert_eq!(search.find(data, from), plain.map(|at| from + at), "{text} from {from} to {end}");
                }
            }
        }
    }
}
