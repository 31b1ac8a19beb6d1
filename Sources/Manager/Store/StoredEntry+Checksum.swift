import Model
import Replica

extension StoredEntry {
  var checksum: UInt32 {
    var crc = CRC32C()
    crc.add(index)
    crc.add(term)
    crc.add(UInt64(kind))
    crc.add(data)
    return crc.value
  }
}

extension StoredHardState {
  var checksum: UInt32 {
    var crc = CRC32C()
    crc.add(term)
    crc.add(vote?.rawValue ?? 0)
    crc.add(committed)
    return crc.value
  }
}
