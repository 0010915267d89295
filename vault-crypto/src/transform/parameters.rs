//! What the header of an encrypted file says of its encryption. Bytes: `docs/format/keyring.md`.

use vault_core::transform::PARAMETER_BYTES;

use crate::cipher::Algorithm;

/// Where the parameters stand in a header, for messages.
pub(crate) const PARAMETERS_OFFSET: u64 = 64;

/// The parameters in a file's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameters {
    /// What seals the file.
    pub(crate) algorithm: Algorithm,
    /// The epoch of the data key.
    pub(crate) epoch: u32,
}

/// What is wrong with parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ParameterProblem {
    /// This build does not know the algorithm.
    UnknownAlgorithm(u16),
    /// Bytes are set that have no meaning.
    NotZero,
    /// Epochs count from one.
    EpochZero,
}

impl std::fmt::Display for ParameterProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnknownAlgorithm(id) => {
                write!(f, "cipher {id} is not known to this build, which has ")?;
                for (index, algorithm) in Algorithm::ALL.iter().enumerate() {
                    let separator = if index == 0 { "" } else { ", " };
                    write!(f, "{separator}{} ({})", algorithm.id(), algorithm.name())?;
                }
                Ok(())
            }
            Self::NotZero => f.write_str(
                "bytes of the encryption's parameters are set that have no meaning to this build",
            ),
            Self::EpochZero => f.write_str("epoch 0 where epochs count from 1"),
        }
    }
}

impl Parameters {
    /// Their bytes.
    pub(crate) fn encode(self) -> [u8; PARAMETER_BYTES] {
        let mut bytes = [0; PARAMETER_BYTES];
        bytes[..2].copy_from_slice(&self.algorithm.id().to_le_bytes());
        bytes[2..6].copy_from_slice(&self.epoch.to_le_bytes());
        bytes
    }

    /// Reads their bytes.
    pub(crate) fn decode(bytes: &[u8; PARAMETER_BYTES]) -> Result<Self, ParameterProblem> {
        let id = u16::from_le_bytes([bytes[0], bytes[1]]);
        let algorithm = Algorithm::from_id(id).ok_or(ParameterProblem::UnknownAlgorithm(id))?;
        let epoch = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        if bytes[6..].iter().any(|&byte| byte != 0) {
            return Err(ParameterProblem::NotZero);
        }
        if epoch == 0 {
            return Err(ParameterProblem::EpochZero);
        }
        Ok(Self { algorithm, epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_round_trip_and_nothing_else_is_taken() {
        for algorithm in Algorithm::ALL {
            let parameters = Parameters {
                algorithm,
                epoch: 7,
            };
            let bytes = parameters.encode();
            assert_eq!(Parameters::decode(&bytes), Ok(parameters));
            for at in 6..PARAMETER_BYTES {
                let mut odd = bytes;
                odd[at] = 1;
                assert_eq!(Parameters::decode(&odd), Err(ParameterProblem::NotZero));
            }
            let mut odd = bytes;
            odd[0] = 9;
            let unknown = ParameterProblem::UnknownAlgorithm(9);
            assert_eq!(Parameters::decode(&odd), Err(unknown));
            let zero = Parameters {
                epoch: 0,
                ..parameters
            };
            assert_eq!(
                Parameters::decode(&zero.encode()),
                Err(ParameterProblem::EpochZero)
            );
        }
        let said = ParameterProblem::UnknownAlgorithm(9).to_string();
        assert!(
            said.contains("1 (ChaCha20-Poly1305), 2 (AES-256-GCM)"),
            "{said}"
        );
    }
}
