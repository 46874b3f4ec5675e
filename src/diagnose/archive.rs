//! A bundle as one file: a tar archive (POSIX ustar), compressed with zstd. Equal bundles give equal
//! bytes: names are sorted, times and owners are left at 0.

use super::Error;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// A block of a tar archive, in bytes.
const BLOCK: usize = 512;
/// Most bytes of a bundle, unpacked, and most files; more is no bundle of ours.
const BUNDLE_BYTES: u64 = 1 << 30;
const FILES: usize = 64;

/// The files of a bundle, by name.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Packs the files that lie directly in `directory` into `file`.
///
/// # Errors
/// As [`packed`], and [`Error::File`] when the archive cannot be written.
pub fn pack(directory: &Path, file: &Path) -> Result<(), Error> {
    fs::write(file, packed(directory)?).map_err(Error::file(file))
}

/// The archive of the files that lie directly in `directory`.
///
/// # Errors
/// [`Error::File`] when one cannot be read; [`Error::Bundle`] when they are more than a bundle has.
pub fn packed(directory: &Path) -> Result<Vec<u8>, Error> {
    let files = read_directory(directory)?;
    let mut archive = Vec::new();
    for (name, content) in &files {
        archive.extend_from_slice(&header(name, content.len())?);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    zstd::encode_all(archive.as_slice(), 3).map_err(Error::file(directory))
}

/// Reads a bundle: a directory, or a file that [`pack`] made.
///
/// # Errors
/// [`Error::File`] when it cannot be read, [`Error::Bundle`] when it is none.
pub fn read(path: &Path) -> Result<Files, Error> {
    if path.is_dir() {
        return read_directory(path);
    }
    let file = fs::File::open(path).map_err(Error::file(path))?;
    let decoder = zstd::Decoder::new(file).map_err(Error::file(path))?;
    let mut archive = Vec::new();
    decoder.take(BUNDLE_BYTES + 1).read_to_end(&mut archive).map_err(Error::file(path))?;
    if archive.len() as u64 > BUNDLE_BYTES {
        return Err(Error::Bundle("it is larger than a bundle can be".to_owned()));
    }
    unpack(&archive)
}

fn read_directory(directory: &Path) -> Result<Files, Error> {
    let mut files = Files::new();
    let mut bytes = 0u64;
    for entry in fs::read_dir(directory).map_err(Error::file(directory))? {
        let path = entry.map_err(Error::file(directory))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        if path.is_file() {
            let content = fs::read(&path).map_err(Error::file(&path))?;
            bytes = bytes.saturating_add(content.len() as u64);
            files.insert(name.to_owned(), content);
        }
        if files.len() > FILES || bytes > BUNDLE_BYTES {
            return Err(Error::Bundle("it holds more than a bundle does".to_owned()));
        }
    }
    Ok(files)
}

/// The ustar header of a plain file that all may read.
fn header(name: &str, bytes: usize) -> Result<[u8; BLOCK], Error> {
    if name.len() > 100 {
        return Err(Error::Bundle(format!("the name {name:?} is too long")));
    }
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, field: &[u8]| {
        if let Some(place) = block.get_mut(at..at + field.len()) {
            place.copy_from_slice(field);
        }
    };
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{bytes:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    if let Some(place) = block.get_mut(148..156) {
        place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    Ok(block)
}

fn unpack(archive: &[u8]) -> Result<Files, Error> {
    let damaged = || Error::Bundle("its archive is damaged".to_owned());
    let mut files = Files::new();
    let mut rest = archive;
    while let Some((block, after)) = rest.split_at_checked(BLOCK) {
        if block.iter().all(|byte| *byte == 0) {
            return Ok(files);
        }
        let field = |from: usize, to: usize| {
            let bytes = block.get(from..to).unwrap_or_default();
            std::str::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).map(str::trim)
        };
        let name = field(0, 100).map_err(|_| damaged())?;
        let bytes = field(124, 136).ok().and_then(|text| usize::from_str_radix(text, 8).ok());
        let content = bytes.and_then(|bytes| after.get(..bytes)).ok_or_else(damaged)?;
        // Folders and the like hold nothing that is read.
        if matches!(block.get(156), Some(b'0' | 0)) {
            let name = name.rsplit('/').next().unwrap_or_default();
            files.insert(name.to_owned(), content.to_vec());
        }
        if files.len() > FILES {
            return Err(Error::Bundle("it holds more files than a bundle does".to_owned()));
        }
        rest = after.get(content.len().next_multiple_of(BLOCK)..).unwrap_or_default();
    }
    Err(damaged())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_read_again_and_damage_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        let long: Vec<u8> = (0..5_000u32).map(|n| (n % 251) as u8).collect();
        for (name, content) in [("a.json", b"{}".to_vec()), ("b.parquet", long), ("empty", Vec::new())] {
            fs::write(bundle.join(name), content).unwrap();
        }
        let (one, two) = (directory.path().join("1.tar.zst"), directory.path().join("2.tar.zst"));
        pack(&bundle, &one).unwrap();
        pack(&bundle, &two).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&two).unwrap());
        assert_eq!(read(&one).unwrap(), read(&bundle).unwrap());
        assert_eq!(read(&one).unwrap().len(), 3);
        let archive = zstd::decode_all(fs::File::open(&one).unwrap()).unwrap();
        for cut in [0, 100, 600, 2_000, archive.len() - 2 * BLOCK] {
            assert!(unpack(&archive[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn other_programs_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let bundle = directory.path().join("bundle");
        fs::create_dir(&bundle).unwrap();
        fs::write(bundle.join("index.html"), "<p>hello").unwrap();
        let packed = directory.path().join("x.tar.zst");
        pack(&bundle, &packed).unwrap();
        let plain = directory.path().join("x.tar");
        fs::write(&plain, zstd::decode_all(fs::File::open(&packed).unwrap()).unwrap()).unwrap();
        let out = std::process::Command::new("tar").arg("-xOf").arg(&plain).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(out.stdout, b"<p>hello");
    }
}
