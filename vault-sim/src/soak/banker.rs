//! Money that is moved between accounts, each time in one batch: whatever moment one looks at, it adds up.

use std::time::Duration;

use vault_core::random::SeededRandom;
use vault_core::{Engine, KeyRange, Reader, WriteBatch, WriteOptions};

use super::stage::{ACCOUNTS, OPENING_BALANCE, Opened, Stage, lock, told};

/// Opens the accounts.
pub(super) fn fill(opened: &Opened) -> vault_core::Result<()> {
    let mut batch = WriteBatch::new();
    for account in 0..ACCOUNTS {
        batch.put(
            opened.ids.bank,
            &key(account),
            &OPENING_BALANCE.to_be_bytes(),
        );
    }
    opened.lsm.write(&batch, &WriteOptions::SYNC).map(drop)
}

pub(super) fn work(stage: &Stage, thread: usize) -> Result<(), String> {
    let dice = stage.dice(thread);
    while !stage.is_over() {
        stage.with_store(thread, "move money", |opened| {
            let _till = lock(&stage.till);
            transfer(opened, &dice)
        })?;
        if dice.below(50) == 0 {
            stage.with_store(thread, "add the money up", |opened| {
                check(&opened.lsm, opened)
            })?;
        }
        super::pause(stage, Duration::from_micros(dice.below(300)));
    }
    Ok(())
}

fn transfer(opened: &Opened, dice: &SeededRandom) -> Result<(), String> {
    let (from, to) = (dice.below(ACCOUNTS), dice.below(ACCOUNTS));
    if from == to {
        return Ok(());
    }
    let bank = opened.ids.bank;
    let keys = [key(from), key(to)];
    let found = opened
        .lsm
        .multi_get(bank, &[&keys[0], &keys[1]])
        .map_err(told("look at accounts"))?;
    let amount = 1 + dice.below(20).cast_signed();
    let mut batch = WriteBatch::new();
    for ((key, found), change) in keys.iter().zip(&found).zip([-amount, amount]) {
        let balance = balance_of(found.as_deref())?;
        batch.put(bank, key, &(balance + change).to_be_bytes());
    }
    let durability = if dice.below(20) == 0 {
        WriteOptions::SYNC
    } else {
        WriteOptions::OS
    };
    opened
        .lsm
        .write(&batch, &durability)
        .map_err(told("move money"))?;
    Ok(())
}

/// Checks that what a reader sees adds up, in either direction.
pub(super) fn check(reader: &dyn Reader, opened: &Opened) -> Result<(), String> {
    check_in(reader, opened.ids.bank)
}

/// As [`check`], in the store of another handle.
pub(super) fn check_in(reader: &dyn Reader, bank: vault_core::KeyspaceId) -> Result<(), String> {
    let (mut sum, mut count, mut backwards) = (0, 0, false);
    let mut scan = reader
        .scan(bank, KeyRange::all())
        .map_err(told("scan the bank"))?;
    loop {
        // A scan is taken from both ends, so that they meet.
        let entry = if backwards {
            scan.next_back()
        } else {
            scan.next()
        };
        backwards = !backwards;
        let Some(entry) = entry else { break };
        let (_, value) = entry.map_err(told("scan the bank"))?;
        sum += balance_of(Some(&value))?;
        count += 1;
    }
    let expected = ACCOUNTS.cast_signed() * OPENING_BALANCE;
    if (sum, count) != (expected, ACCOUNTS) {
        return Err(format!(
            "{count} accounts of {ACCOUNTS} hold {sum} instead of {expected}"
        ));
    }
    Ok(())
}

fn balance_of(value: Option<&[u8]>) -> Result<i64, String> {
    let value = value.ok_or("an account is gone")?;
    let bytes = value
        .try_into()
        .map_err(|_| "an account holds no balance")?;
    Ok(i64::from_be_bytes(bytes))
}

fn key(account: u64) -> Vec<u8> {
    format!("account-{account:04}").into_bytes()
}
