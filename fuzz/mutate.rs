//! Mutations of bytes: what damages, what confuses lengths, and what joins two inputs.

/// Makes new inputs of known ones; the same seed makes the same ones.
pub struct Mutator(fastrand::Rng);

/// Bytes at the edges of varints, lengths and signs, and of texts.
const EDGES: [u8; 14] = [0, 1, 2, 0x0a, 0x12, 0x1a, 0x22, 0x7f, 0x80, 0xff, b'"', b'{', b'\\', b'\n'];
/// No input grows beyond this.
const LONGEST: usize = 16 << 10;

impl Mutator {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn mutate(&mut self, known: &[Vec<u8>]) -> Vec<u8> {
        let mut input = known[self.0.usize(..known.len())].clone();
        for _ in 0..=self.0.usize(..6) {
            self.once(&mut input, known);
        }
        input.truncate(LONGEST);
        input
    }

    fn once(&mut self, input: &mut Vec<u8>, known: &[Vec<u8>]) {
        let random = &mut self.0;
        if input.is_empty() {
            input.push(random.u8(..));
            return;
        }
        let at = random.usize(..input.len());
        match random.u8(..9) {
            0 => input[at] ^= 1 << random.u8(..8),
            1 => input[at] = random.u8(..),
            2 => input[at] = EDGES[random.usize(..EDGES.len())],
            3 => input.insert(at, EDGES[random.usize(..EDGES.len())]),
            4 => drop(input.remove(at)),
            5 => input.truncate(at),
            6 => {
                // A piece again, elsewhere.
                let end = (at + random.usize(1..64)).min(input.len());
                let piece = input[at..end].to_vec();
                let to = random.usize(..=input.len());
                input.splice(to..to, piece);
            }
            7 => {
                let end = (at + random.usize(1..64)).min(input.len());
                input.drain(at..end);
            }
            _ => {
                // The head of this one, the tail of another.
                let other = &known[random.usize(..known.len())];
                let from = random.usize(..=other.len());
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }
}
