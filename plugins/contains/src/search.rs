//! Finds a text in other text. The search compares the text only at places where its two rarest bytes match. A loop
//! without a branch, which compiles to vector instructions, checks whether any place of a block matches. A block is
//! larger than a vector, since each turn of a loop has its own cost in the sandbox. If the text nearly matches at many
//! places, as in made-up text, the search of memchr takes over: its time is linear in the length of both.

use memchr::arch::all::packedpair::Pair;
use memchr::memmem::Finder;

/// The places that are checked together.
const BLOCK: usize = 128;

/// The places of a block that are checked together once a place of the block matches.
const PART: usize = 16;

/// The bytes that may be compared without a hit for each place that was passed.
const VAIN_PER_PLACE: usize = 8;

/// The additional bytes that may be compared without a hit in one search.
const VAIN: usize = 4 << 10;

/// A text to search for.
#[derive(Debug)]
pub(crate) struct Search {
    text: Vec<u8>,
    /// The positions of the two bytes of the text that are rarest in other text.
    rare: [usize; 2],
    linear: Finder<'static>,
}

impl Search {
    /// Prepares a search. `text` is not empty.
    pub(crate) fn new(text: &str) -> Self {
        let text = text.as_bytes().to_vec();
        let pair = Pair::new(&text).map(|pair| [pair.index1(), pair.index2()].map(usize::from));
        Self { rare: pair.unwrap_or_default(), linear: Finder::new(&text).into_owned(), text }
    }

    /// Returns the first place of the text in `data`, from `from` on.
    #[inline]
    pub(crate) fn find(&self, data: &[u8], from: usize) -> Option<usize> {
        let is_here = |at: usize| data[at..at + self.text.len()] == self.text;
        // One past the last place where the text can begin.
        let end = (data.len() + 1).checked_sub(self.text.len())?;
        let [one, other] = self.rare;
        let bytes = self.rare.map(|index| self.text[index]);
        let (mut at, mut vain) = (from, 0);
        while at + BLOCK <= end {
            let ones = data[at + one..].first_chunk().expect("a block before the end");
            let others = data[at + other..].first_chunk().expect("a block before the end");
            if may_hold::<BLOCK>(ones, others, bytes) {
                let parts = ones.as_chunks::<PART>().0.iter().zip(others.as_chunks::<PART>().0);
                for (start, (ones, others)) in (at..).step_by(PART).zip(parts) {
                    let fits = |place: &usize| ones[*place] == bytes[0] && others[*place] == bytes[1];
                    if !may_hold(ones, others, bytes) {
                        continue;
                    }
                    for place in (0..PART).filter(fits) {
                        if is_here(start + place) {
                            return Some(start + place);
                        }
                        vain += self.text.len();
                    }
                    if vain > VAIN_PER_PLACE * (start + PART - from) + VAIN {
                        return self.find_linear(data, start + PART);
                    }
                }
            }
            at += BLOCK;
        }
        (at..end).find(|at| data[at + one] == bytes[0] && is_here(*at))
    }

    #[cold]
    fn find_linear(&self, data: &[u8], from: usize) -> Option<usize> {
        self.linear.find(&data[from..]).map(|at| from + at)
    }
}

/// Returns whether both bytes match at any place.
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
    fn text_that_nearly_matches_everywhere_is_searched_in_linear_time() {
        let near = "ab".repeat(2_000);
        let data = [near.as_bytes(), b"c", &b"ab".repeat(20_000), b"c", near.as_bytes()].concat();
        let search = |text: &str| Search::new(text).find(&data, 0);
        assert_eq!(search(&format!("{near}c")), Some(0));
        assert_eq!(search(&format!("b{near}c")), Some(data.len() - 2 * near.len() - 2));
        assert_eq!(search(&format!("{near}d")), None);
        // The last places are checked one by one, fewer than a block.
        let short = "ab".repeat(20) + "c";
        assert_eq!(Search::new(&short).find(&b"ab".repeat(40), 0), None);
    }

    #[test]
    fn it_finds_what_the_plain_search_finds() {
        // Text of two letters, which contains most short texts, long enough for several blocks.
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
