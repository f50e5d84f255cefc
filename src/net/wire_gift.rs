//! A gift as bytes: the folder's id after its length in a byte, then each content after its length in two.

use bytes::{Buf, Bytes};

use super::bounds::{GIFT_BYTES_MAX, GIFT_ITEMS_MAX};
use super::frame::Gift;
use super::wire::{FieldError, folder_id};

/// Makes the body of a frame, within its limits.
pub fn pack(gift: &Gift) -> Result<Vec<u8>, FieldError> {
    let id = gift.folder.as_str().as_bytes();
    let id_length = u8::try_from(id.len()).map_err(|_| ("folder", "is too long".to_owned()))?;
    check_count(gift.contents.len())?;
    let mut body = vec![id_length];
    body.extend_from_slice(id);
    for bytes in &gift.contents {
        check_length(bytes.len())?;
        body.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
        body.extend_from_slice(bytes);
    }
    Ok(body)
}

/// Reads the body of a frame.
pub fn unpack(mut body: Bytes) -> Result<Gift, FieldError> {
    let cut = |field| (field, "is cut short".to_owned());
    let id_length = usize::from(body.try_get_u8().map_err(|_| cut("folder"))?);
    if body.len() < id_length {
        return Err(cut("folder"));
    }
    let id = body.split_to(id_length);
    let id = std::str::from_utf8(&id).map_err(|_| ("folder", "is no text".to_owned()))?;
    let folder = folder_id(id)?;
    let mut contents = Vec::new();
    while !body.is_empty() {
        let length = usize::from(body.try_get_u16().map_err(|_| cut("contents"))?);
        check_length(length)?;
        if body.len() < length {
            return Err(cut("contents"));
        }
        contents.push(body.split_to(length));
        check_count(contents.len())?;
    }
    Ok(Gift { folder, contents })
}

fn check_count(count: usize) -> Result<(), FieldError> {
    if count > GIFT_ITEMS_MAX {
        return Err(("contents", format!("{count} are more than {GIFT_ITEMS_MAX}")));
    }
    Ok(())
}

fn check_length(length: usize) -> Result<(), FieldError> {
    if length == 0 || length > GIFT_BYTES_MAX {
        return Err(("contents", format!("one of {length} bytes is none of 1 to {GIFT_BYTES_MAX}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gift(lengths: &[usize]) -> Gift {
        let contents = lengths.iter().map(|length| Bytes::from(vec![7; *length])).collect();
        Gift { folder: "photos".parse().unwrap(), contents }
    }

    #[test]
    fn a_gift_reads_back_at_its_limits_and_not_one_past_them() {
        for good in [gift(&[]), gift(&[1]), gift(&[GIFT_BYTES_MAX; GIFT_ITEMS_MAX])] {
            assert_eq!(unpack(pack(&good).unwrap().into()), Ok(good));
        }
        for bad in [gift(&[0]), gift(&[GIFT_BYTES_MAX + 1]), gift(&[1; GIFT_ITEMS_MAX + 1])] {
            assert!(pack(&bad).is_err());
        }
        let one_more = [pack(&gift(&[1; GIFT_ITEMS_MAX])).unwrap(), vec![0, 1, 7]].concat();
        let longer = [pack(&gift(&[])).unwrap(), vec![0x40, 0x01], vec![7; 0x4001]].concat();
        assert!(unpack(one_more.into()).is_err() && unpack(longer.into()).is_err());
    }

    #[test]
    fn a_gift_that_is_cut_anywhere_is_refused_or_has_fewer_contents() {
        let whole = pack(&gift(&[3, 300])).unwrap();
        for length in 0..whole.len() {
            let cut = unpack(Bytes::copy_from_slice(&whole[..length]));
            assert!(cut.is_err() || cut.is_ok_and(|gift| gift.contents.len() < 2), "{length}");
        }
    }
}
