"""PyTorch: which language a name comes from, with packed sequences of different lengths."""

# imports
import torch
from torch import nn
from torch.nn import GRU
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

# program
torch.manual_seed(4)
LETTERS, CLASSES = 12, 3


class NameClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, 8)
        self.gru = GRU(8, 24, num_layers=2, batch_first=True, dropout=0.1, bidirectional=True)
        self.fc = nn.Linear(48, CLASSES)

    def forward(self, names, lengths):
        packed = pack_padded_sequence(self.embedding(names), lengths, batch_first=True, enforce_sorted=False)
        _, h_n = self.gru(packed)
        return self.fc(torch.cat([h_n[-2], h_n[-1]], dim=1))


# Each class prefers other letters.
labels = torch.randint(0, CLASSES, (240,))
names = [torch.randint(0, 4, (int(torch.randint(2, 9, (1,))),)) + 4 * label for label in labels]
lengths = torch.tensor([len(name) for name in names])
x = pad_sequence(names, batch_first=True)

model = NameClassifier()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
losses = []
for _ in range(8):
    model.train()
    for rows in torch.randperm(len(x)).split(32):
        optimizer.zero_grad()
        loss = criterion(model(x[rows], lengths[rows]), labels[rows])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    losses.append(loss.item())
model.eval()
with torch.no_grad():
    predictions = model(x, lengths)
score = (predictions.argmax(dim=1) == labels).float().mean().item()
