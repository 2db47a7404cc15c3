//! PAL plugin: an A/B pair of slots in lent storage.
use pal_sdk::lent::*;
use pal_sdk::*;
pub struct FlashFile<L>(L);
impl<L: BlockDevice + Log + 'static> Plugin for FlashFile<L> {
    type Lent = L;
    fn describe() -> Description {
        Description {
            name: "pal-flash-file".into(),
            version: "0.0.0".into(),
            kinds: vec!["flash-file".into()],
            capabilities: 1,
            largest_write: 4096,
            schemas: vec![1],
        }
    }
    fn open(lent: L, _: Vec<Setting>, _: Option<Blob>) -> Result<Self, Failure> {
        lent.log(Level::Info, "x");
        Ok(Self(lent))
    }
    fn create(&mut self, t: Transfer) -> Result<Duty, Failure> {
        self.0.read_at(0, t.size, 4)?;
        Duty::done()
    }
    fn reopen(&mut self, t: Transfer) -> Result<Duty, Failure> {
        self.0.read_at(0, t.size, 4)?;
        Duty::done()
    }
    fn activate(&mut self, sha256: [u8; 32]) -> Result<Duty, Failure> {
        self.0.write_at(0, 0, &sha256)?;
        Duty::done()
    }
    fn commit(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }
    fn reject(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }
    fn state(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }
    fn abort(&mut self) -> Result<Duty, Failure> {
        Duty::done()
    }
}
export_plugin!(FlashFile<pal_sdk::Lent>);
