//! The options of a keyspace as the manifest records them: pairs of a tag and bytes.

use vault_core::codec::{Decoder, put_bytes, put_varint};
use vault_core::{CompactionPolicy, Compression, FilterPolicy, KeyspaceOptions};

const POLICY: u8 = 1;
const COMPRESSION: u8 = 2;
const FILTER: u8 = 3;
const BLOCK_BYTES: u8 = 4;
const WRITE_BUFFER_BYTES: u8 = 5;
const TABLE_BYTES: u8 = 6;
const MERGE_OPERATOR: u8 = 7;
const LARGE_VALUE_BYTES: u8 = 8;
/// The options that are always there.
const ALWAYS: [u8; 7] = [
    POLICY,
    COMPRESSION,
    FILTER,
    BLOCK_BYTES,
    WRITE_BUFFER_BYTES,
    TABLE_BYTES,
    LARGE_VALUE_BYTES,
];

/// Encodes every option.
pub(crate) fn encode(options: &KeyspaceOptions) -> Vec<u8> {
    let mut out = Vec::new();
    let mut pair = |tag: u8, value: &[u8]| {
        out.push(tag);
        put_bytes(&mut out, value);
    };
    let varint = |value: u64| {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, value);
        bytes
    };
    pair(POLICY, &encode_policy(&options.policy));
    let compression = match options.compression {
        Compression::None => 0,
        Compression::Lz4 => 1,
    };
    pair(COMPRESSION, &[compression]);
    let bits = match options.filter {
        FilterPolicy::None => 0,
        FilterPolicy::Bloom { bits_per_key } => bits_per_key,
    };
    pair(FILTER, &[bits]);
    pair(BLOCK_BYTES, &varint(u64::from(options.block_bytes)));
    pair(WRITE_BUFFER_BYTES, &varint(options.write_buffer_bytes));
    pair(TABLE_BYTES, &varint(options.table_bytes));
    let large = options.large_value_bytes.unwrap_or(0);
    pair(LARGE_VALUE_BYTES, &varint(u64::from(large)));
    if let Some(operator) = &options.merge_operator {
        pair(MERGE_OPERATOR, operator.as_bytes());
    }
    out
}

fn encode_policy(policy: &CompactionPolicy) -> Vec<u8> {
    let (kind, parameters) = match *policy {
        CompactionPolicy::Leveled {
            level0_runs,
            base_bytes,
            fanout,
        } => (
            1,
            vec![u64::from(level0_runs), base_bytes, u64::from(fanout)],
        ),
        CompactionPolicy::Tiered {
            runs_min,
            runs_max,
            size_ratio_percent,
        } => (
            2,
            vec![
                u64::from(runs_min),
                u64::from(runs_max),
                u64::from(size_ratio_percent),
            ],
        ),
        CompactionPolicy::Fifo { bytes_max } => (3, vec![bytes_max]),
    };
    let mut out = vec![kind];
    parameters
        .into_iter()
        .for_each(|parameter| put_varint(&mut out, parameter));
    out
}

/// Decodes options; `None` where they make no sense, leave one out, have one twice, or carry a tag of a
/// newer format.
///
/// An option that is left out is not filled in: what stands for a whole keyspace in a few bytes could make
/// a manifest grow in memory to many times its size.
pub(crate) fn decode(bytes: &[u8]) -> Option<KeyspaceOptions> {
    let mut options = KeyspaceOptions {
        merge_operator: None,
        ..KeyspaceOptions::default()
    };
    let mut decoder = Decoder::new(bytes);
    let mut seen = [false; LARGE_VALUE_BYTES as usize + 1];
    while !decoder.is_empty() {
        let tag = decoder.u8()?;
        if std::mem::replace(seen.get_mut(usize::from(tag))?, true) {
            return None;
        }
        let mut value = Decoder::new(decoder.bytes()?);
        match tag {
            POLICY => options.policy = decode_policy(&mut value)?,
            COMPRESSION => {
                options.compression = match value.u8()? {
                    0 => Compression::None,
                    1 => Compression::Lz4,
                    _ => return None,
                };
            }
            FILTER => {
                options.filter = match value.u8()? {
                    0 => FilterPolicy::None,
                    bits_per_key => FilterPolicy::Bloom { bits_per_key },
                };
            }
            BLOCK_BYTES => options.block_bytes = u32::try_from(value.varint()?).ok()?,
            WRITE_BUFFER_BYTES => options.write_buffer_bytes = value.varint()?,
            TABLE_BYTES => options.table_bytes = value.varint()?,
            LARGE_VALUE_BYTES => {
                options.large_value_bytes = match value.varint()? {
                    0 => None,
                    bytes => Some(u32::try_from(bytes).ok()?),
                };
            }
            MERGE_OPERATOR => {
                let name = value.take(value.rest().len())?;
                options.merge_operator = Some(String::from_utf8(name.to_vec()).ok()?);
            }
            _ => return None,
        }
        if !value.is_empty() {
            return None;
        }
    }
    let whole = ALWAYS.iter().all(|&tag| seen[usize::from(tag)]);
    (whole && options.check().is_ok()).then_some(options)
}

fn decode_policy(decoder: &mut Decoder<'_>) -> Option<CompactionPolicy> {
    let kind = decoder.u8()?;
    let byte = |decoder: &mut Decoder<'_>| u8::try_from(decoder.varint()?).ok();
    Some(match kind {
        1 => CompactionPolicy::Leveled {
            level0_runs: byte(decoder)?,
            base_bytes: decoder.varint()?,
            fanout: byte(decoder)?,
        },
        2 => CompactionPolicy::Tiered {
            runs_min: byte(decoder)?,
            runs_max: byte(decoder)?,
            size_ratio_percent: u16::try_from(decoder.varint()?).ok()?,
        },
        3 => CompactionPolicy::Fifo {
            bytes_max: decoder.varint()?,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_round_trip() {
        for policy in [
            CompactionPolicy::LEVELED,
            CompactionPolicy::TIERED,
            CompactionPolicy::Fifo { bytes_max: 1 << 33 },
        ] {
            let mut options = KeyspaceOptions::default()
                .policy(policy)
                .merge("vault.counter");
            options.filter = FilterPolicy::None;
            options.compression = Compression::None;
            options.large_value_bytes =
                matches!(policy, CompactionPolicy::Fifo { .. }).then_some(1 << 30);
            assert_eq!(decode(&encode(&options)), Some(options));
        }
    }

    #[test]
    fn unknown_tags_and_senseless_values_are_refused() {
        assert_eq!(decode(&[99, 0]), None);
        assert_eq!(decode(&[COMPRESSION, 1, 7]), None);
        assert_eq!(decode(&[BLOCK_BYTES, 1, 1]), None);
        assert_eq!(decode(&[FILTER, 2, 10, 10]), None);
        assert_eq!(decode(&[POLICY]), None);
        let whole = encode(&KeyspaceOptions::default());
        assert!(decode(&whole).is_some());
        assert_eq!(decode(&[&whole[..], &[COMPRESSION, 1, 1]].concat()), None);
        assert_eq!(decode(&[&whole[..], &[0, 0]].concat()), None);
        for cut in 0..whole.len() {
            assert_eq!(decode(&whole[..cut]), None);
        }
    }
}
